"""Everything between the command line and the program: flags, commands and the environment of installed packages.

It runs before anything is installed, so it imports the standard library and `modules.core` alone.
"""
