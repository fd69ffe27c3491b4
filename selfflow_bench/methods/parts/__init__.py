"""What several methods are made of: projectors, weight schedules."""
