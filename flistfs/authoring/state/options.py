"""RocksDB options of a session's journal."""

from __future__ import annotations

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
)

# Memory that RocksDB may use, in bytes. Two write buffers and the block cache stay far below the daemon's
# 256 MiB, whatever the number of files.
WRITE_BUFFER = 16 << 20


_BLOCK_CACHE = 32 << 20


def journal_options() -> Options:
    """Return the options that a journal is opened with."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_write_buffer_number(2)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    # A record that was half written when the daemon died is dropped; damage anywhere else is an error.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_block_cache(Cache(_BLOCK_CACHE))
    table.set_cache_index_and_filter_blocks(True)
    # Partitioned filters and indexes: those of a large table take megabytes, and were read again for each
    # lookup once the cache could not hold them all. With partitions a file costs 51 µs both at 75,000 and at
    # 600,000 files, instead of 1,400 µs.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    options.set_block_based_table_factory(table)
    return options
