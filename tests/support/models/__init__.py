"""Models that the tests are run on."""
