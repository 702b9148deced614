"""What real files, servers and texts were seen to break, each with its right value.

A test is named for its case (`test_s01_...`) and lies in the file of its kind. The cases came from
published data, other projects' bug reports, and hostile bytes.
"""
