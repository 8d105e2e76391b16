"""What ControlNets are shown of a picture, where that takes a model that the operator names."""
