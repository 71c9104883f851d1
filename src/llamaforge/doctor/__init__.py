"""What can be wrong with a node, looked for one small check at a time: `llamaforge doctor`."""
