"""Plans jobs, makes generations, keeps job folders. Never computes anything itself."""
