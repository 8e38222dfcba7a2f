"""Request to pictures: the processing that every tab shares."""
