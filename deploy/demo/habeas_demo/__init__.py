"""A demonstration platform whose privacy policy Habeas keeps, and independent checks that it did."""
