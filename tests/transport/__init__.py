"""Tests of the transport that have no sync form, and those of its shared parts."""
