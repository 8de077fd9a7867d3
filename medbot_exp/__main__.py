"""python -m medbot_exp"""

from medbot_exp.cli import entrypoint

if __name__ == "__main__":
    entrypoint()
