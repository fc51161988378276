"""Where targets come from: momentum teachers, and clusters of features (`av-ssl targets`)."""
