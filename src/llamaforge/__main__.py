"""`python -m llamaforge` is `llamaforge`, for machines where scripts are not on PATH."""

from llamaforge.cli.main import main

if __name__ == "__main__":
    main()
