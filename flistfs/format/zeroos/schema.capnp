@0xde60b4ffc6b17c8e;

# The records of a catalog, as they lie on the wire. What readers rely on is the numbers and the types;
# the names and this file's id are ours.
#
# Every field marked "text" is Text for other readers. It is declared as Data here because names are bytes:
# libraries refuse Text that is not UTF-8. On the wire the two differ only in Text's closing NUL, which
# records.py adds and takes off.

struct Dir {
  name @0 :Data;  # text
  location @1 :Data;  # text
  contents @2 :List(Inode);
  parent @3 :Data;  # text
  size @4 :UInt64;
  aclkey @5 :Data;  # text
  modificationTime @6 :UInt32;
  creationTime @7 :UInt32;
}

struct Inode {
  name @0 :Data;  # text
  size @1 :UInt64;
  attributes :union {
    dir @2 :SubDir;
    file @3 :File;
    link @4 :Link;
    special @5 :Special;
  }
  aclkey @6 :Data;  # text
  modificationTime @7 :UInt32;
  creationTime @8 :UInt32;
}

struct SubDir {
  key @0 :Data;  # text
}

struct File {
  blockSize @0 :UInt16;  # in units of 4 KiB
  blocks @1 :List(FileBlock);
}

struct FileBlock {
  hash @0 :Data;
  key @1 :Data;
}

struct Link {
  target @0 :Data;  # text
}

struct Special {
  type @0 :UInt16;  # an enum for other readers, the same on the wire: socket, block, char, fifo, unknown
  data @1 :Data;
}

struct Aci {
  uname @0 :Data;  # text
  gname @1 :Data;  # text
  mode @2 :UInt16;
  rights @3 :List(Right);
  id @4 :UInt32;
  uid @5 :Int64 = -1;
  gid @6 :Int64 = -1;
}

struct Right {
  right @0 :Data;  # text
  usergroupid @1 :UInt16;
}
