"""May the container sleep, and is it awake?"""
