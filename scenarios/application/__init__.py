"""An application of several services, launched as a whole: how it is described (a TOML file of the lab's, or a Compose
file), what its services are told of one another on each platform, how they wait for one another, and three questions:
`boot`, `memory` and `recover`."""
