"""Our side as client: connections, pools, attempts."""
