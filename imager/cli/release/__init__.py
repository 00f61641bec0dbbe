"""commands for releases and images"""
