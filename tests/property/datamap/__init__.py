"""The two laws of the data map over random schemas, maps and rows: nobody else is touched, nothing is left."""
