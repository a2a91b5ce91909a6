"""For authors of methods: a skeleton that runs, and a check of the contract."""
