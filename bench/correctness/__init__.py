"""Is the loss right on a device: `gates` against float64, `oracle` with the cases of the tests, `bounds` for both."""
