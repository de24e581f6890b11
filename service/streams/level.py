"""The adaptive level of one entity, beside the p-values that do not adapt.

Adaptive conformal inference (Gibbs and Candès, Adaptive Conformal Inference Under Distribution
Shift, NeurIPS 2021, equation 2): each alarm lowers the level by gamma (1 - alpha), each other row
raises it by gamma alpha. Whatever the p-values do, the share of alarms among T rows is within
(max(alpha, 1 - alpha) + gamma) / (gamma T) of alpha, unless the bound below holds the level back,
which only takes alarms away.

The level is one float. It may be below the smallest p-value 1 / (n + 1), and below 0: an entity
then pays for the alarms that it has had, and raises none until it has. Every row counts, also one
that alarms: left out of it, alarms doubled in the study.
"""

GAMMA = 0.005
# A quiet entity would raise its level until ordinary rows alarm, and a jump from there is hundreds
# of alarms: ten times the budget is enough for rows that depend on each other.
MOST = 10.0


def adapt(level: float, p_value: float, alpha: float, gamma: float = GAMMA) -> float:
    """The level for the next row, after one of this p-value; it begins as alpha.

    A row that could not be judged, whose p-value is NaN, leaves it as it is.
    """
    if p_value != p_value:
        return level
    is_alarm = p_value <= level
    return min(level + gamma * (alpha - is_alarm), max(min(MOST * alpha, 0.5), alpha))
