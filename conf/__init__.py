"""The configs of the commands, installed as `track.conf`."""
