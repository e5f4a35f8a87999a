"""`chalk-online-store capacity`: from a mix of queries and writes to a table and its price."""
