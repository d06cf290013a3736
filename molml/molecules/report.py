"""What a training leaves behind for a reader: metrics.json, figures and one self-contained report.html."""
