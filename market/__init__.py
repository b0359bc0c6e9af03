"""What compute costs and what to do about it: offers, prices, availability, and the policy that decides."""
