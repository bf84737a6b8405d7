"""What tests of several rooms share: an engine process, an ordinary user, counts of what is on the machine."""
