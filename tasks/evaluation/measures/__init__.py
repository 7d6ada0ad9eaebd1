"""What is measured: a module per metric, on frames and on what shows that two agents generate one world."""
