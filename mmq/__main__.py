"""`python -m mmq`: the same as `mmq`."""

from mmq.cli import main

if __name__ == "__main__":
    main()
