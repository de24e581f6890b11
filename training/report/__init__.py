"""What a run says: figures for whoever called it, a table on the terminal, and beside the model
report.json, report.html and card.md.

Each section of the report is a file that says what its figures mean; `facts.py` gathers them,
`page.py` and `card.py` write them down.
"""

from hourglass.training.report.figures import LeftOut as LeftOut
from hourglass.training.report.figures import Report as Report
from hourglass.training.report.figures import TimeAxis as TimeAxis
from hourglass.training.report.figures import time_axis as time_axis
from hourglass.training.report.figures import write_report as write_report
from hourglass.training.report.terminal import print_alarm_rates as print_alarm_rates
from hourglass.training.report.terminal import print_comparison as print_comparison
from hourglass.training.report.terminal import print_evaluation as print_evaluation
from hourglass.training.report.terminal import print_ordered as print_ordered
from hourglass.training.report.terminal import print_report as print_report
from hourglass.training.report.terminal import print_seen as print_seen
from hourglass.training.report.terminal import print_versions as print_versions
