"""Commands of ``opspawn``: the command, its options and its output stand in the file of its noun."""
