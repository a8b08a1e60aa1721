"""The microservice that is launched on every platform, the guest's init, and how they are built."""
