"""commands for one card"""
