"""For authors of methods: a skeleton that runs, and the check of the contract."""
