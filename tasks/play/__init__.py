"""Two people drive two cars in one generated world, in a browser: seats, the loop, the page, the truth beside it."""
