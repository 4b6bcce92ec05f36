"""Studies: members that share stage 1, controls on what they learnt, and what a report says of them."""
