// Command sumdb-oracle verifies a log directory with golang.org/x/mod/sumdb alone, as a second opinion on our own code.
//
//	sumdb-oracle <directory> <verifier key> [<older checkpoint file> ...]
//
// It opens the signed checkpoint, hashes every entry, checks every leaf's inclusion through authenticated tiles, derives
// the root from the entries, and proves each older checkpoint consistent. It writes "ok <size> <root>" or exits with 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: sumdb-oracle <directory> <verifier key> [<older checkpoint file> ...]")
	}
	directory, key := args[0], args[1]
	tree, err := openCheckpoint(filepath.Join(directory, "checkpoint"), key)
	if err != nil {
		return err
	}
	leaves, err := checkEntries(directory, tree)
	if err != nil {
		return err
	}
	if err := checkRoot(leaves, tree); err != nil {
		return err
	}
	for _, file := range args[2:] {
		if err := checkOlder(directory, file, key, tree); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	fmt.Printf("ok %d %x\n", tree.N, tree.Hash[:])
	return nil
}

func openCheckpoint(file, key string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tlog.Tree{}, err
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, errors.New("bad root in the checkpoint")
	}
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	return tree, nil
}

// tiles reads tiles of a log directory; the sumdb path has the tile height, ours (C2SP tlog-tiles) has not.
type tiles struct{ directory string }

func (t tiles) Height() int { return height }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(wanted))
	for i, tile := range wanted {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		raw, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		data[i] = raw
	}
	return data, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// checkEntries reads every bundle and compares each entry's leaf hash with the authenticated tile of level 0.
func checkEntries(directory string, tree tlog.Tree) ([]tlog.Hash, error) {
	reader := tlog.TileHashReader(tree, tiles{directory})
	var leaves []tlog.Hash
	for bundle := int64(0); bundle<<height < tree.N; bundle++ {
		width := min(tree.N-bundle<<height, 1<<height)
		tile := tlog.Tile{H: height, L: -1, N: bundle, W: int(width)}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", height), "tile/entries/", 1)
		raw, err := os.ReadFile(filepath.Join(directory, path))
		if err != nil {
			return nil, err
		}
		var indexes []int64
		for len(raw) >= 2 {
			length := int(binary.BigEndian.Uint16(raw))
			if len(raw) < 2+length {
				break
			}
			indexes = append(indexes, tlog.StoredHashIndex(0, int64(len(leaves))))
			leaves = append(leaves, tlog.RecordHash(raw[2:2+length]))
			raw = raw[2+length:]
		}
		if len(raw) != 0 || int64(len(indexes)) != width {
			return nil, fmt.Errorf("%s does not hold %d entries", path, width)
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return nil, err
		}
		for i, hash := range hashes {
			if hash != leaves[bundle<<height+int64(i)] {
				return nil, fmt.Errorf("entry %d is not in the tree", bundle<<height+int64(i))
			}
		}
	}
	return leaves, nil
}

// checkRoot builds the tree from the entries alone, without any tile.
func checkRoot(leaves []tlog.Hash, tree tlog.Tree) error {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = stored[index]
		}
		return found, nil
	})
	for n, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(int64(n), leaf, reader)
		if err != nil {
			return err
		}
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return errors.New("the entries hash to another root")
	}
	return nil
}

func checkOlder(directory, file, key string, tree tlog.Tree) error {
	older, err := openCheckpoint(file, key)
	if err != nil {
		return err
	}
	if older.N == 0 {
		return nil
	}
	proof, err := tlog.ProveTree(tree.N, older.N, tlog.TileHashReader(tree, tiles{directory}))
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash)
}
