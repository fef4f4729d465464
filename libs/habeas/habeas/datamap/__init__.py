"""What a company promises (`policy.yaml`), where its data is (the data map), and the SQL that follows from both."""
