"""The hooks, by subject. Users import them from `detectron2.engine.hooks`."""
