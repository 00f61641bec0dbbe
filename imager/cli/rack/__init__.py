"""commands for a whole rack"""
