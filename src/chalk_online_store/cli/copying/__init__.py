"""`chalk-online-store copy`: a store into another one, whatever engine each is on."""
