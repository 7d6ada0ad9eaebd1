"""The simulated world: towns loaded, actors, sensors, time."""
