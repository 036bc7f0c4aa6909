"""The demonstration: a simulated session recorded into an embedded ClickHouse, and three questions asked of it."""

from recorder.demo.run import Answer, DemoReport, TableReport, run_demo
from recorder.demo.show import show

__all__ = ["Answer", "DemoReport", "TableReport", "run_demo", "show"]
