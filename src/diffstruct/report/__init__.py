"""What a page about runs shows: plain records, whatever they are of."""

from diffstruct.report.record import Record, WidthRecord, WidthSample

__all__ = ["Record", "WidthRecord", "WidthSample"]
