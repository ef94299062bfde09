"""From a trained backbone to ranked codes."""
