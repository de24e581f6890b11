"""The gate's benchmark: are spoilt challengers refused, and honest refits published?"""
