"""What the report page is made of: words, table, figures and clips."""
