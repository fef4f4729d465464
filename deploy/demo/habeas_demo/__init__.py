"""A demonstration platform whose privacy policy Habeas keeps, and the checks that it did."""
