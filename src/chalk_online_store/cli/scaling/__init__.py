"""`chalk-online-store autoscale`: how capacity follows a load, before it has to."""
