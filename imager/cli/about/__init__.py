"""commands about the program itself"""
