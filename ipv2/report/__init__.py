"""What the report of a run says: from results and images to `common.report.parts`."""
