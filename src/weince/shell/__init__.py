"""What every command shares: its one error, whole files, where numbers come from, the terminal, the pages."""
