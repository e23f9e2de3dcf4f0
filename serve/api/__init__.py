"""HTTP: the gateway of a task, the control application, and the request and response code they share."""
