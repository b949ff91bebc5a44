import ch.systemsx.cisd.hdf5.HDF5DataSetInformation;
import ch.systemsx.cisd.hdf5.HDF5Factory;
import ch.systemsx.cisd.hdf5.IHDF5Reader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.util.Arrays;

/**
 * Reads BigDataViewer files as BigDataViewer does, block by block through JHDF5, and prints one line
 * for each level: path, shape, chunk, element size in bytes, SHA-256 of its voxels in (z, y, x)
 * order, little endian. Before them, the attribute dataType ("-": none, read as int16, as
 * BigDataViewer does) and the tables. PATH@Z: of the first level, only the layer from slice Z on.
 * PATH#S: of setup S, not 0.
 */
public class ReadLevels {
    public static void main(String[] files) throws Exception {
        for (String file : files) {
            String[] setup = file.split("#");
            String[] parts = setup[0].split("@");
            try (IHDF5Reader reader = HDF5Factory.openForReading(parts[0])) {
                long only = parts.length > 1 ? Long.parseLong(parts[1]) : -1;
                read(parts[0], reader, only, setup.length > 1 ? Integer.parseInt(setup[1]) : 0);
            }
        }
    }

    private static void read(String path, IHDF5Reader reader, long only, int setup)
        throws Exception {
        String group = String.format("s%02d", setup);
        double[][] resolutions = reader.readDoubleMatrix(group + "/resolutions");
        int[][] subdivisions = reader.readIntMatrix(group + "/subdivisions");
        boolean typed = reader.object().hasAttribute(group, "dataType");
        String type = typed ? reader.string().getAttr(group, "dataType") : "-";
        System.out.printf("%s %s %s %s%n", path, type, flat(Arrays.deepToString(resolutions)),
            flat(Arrays.deepToString(subdivisions)));
        for (int level = 0; level < (only < 0 ? resolutions.length : 1); level++) {
            String cells = String.format("t%05d/%s/%d/cells", 0, group, level);
            HDF5DataSetInformation about = reader.getDataSetInformation(cells);
            long[] shape = about.getDimensions();
            int[] chunk = about.tryGetChunkSizes();
            int size = about.getTypeInformation().getElementSize();
            System.out.printf("%s %s %s %d %s%n", cells, flat(Arrays.toString(shape)),
                flat(Arrays.toString(chunk)), size, digest(reader, cells, shape, chunk, type, only));
        }
    }

    private static String flat(String text) {
        return text.replace(" ", "");
    }

    private static String digest(
        IHDF5Reader reader, String cells, long[] shape, int[] chunk, String type, long only)
        throws Exception {
        MessageDigest sha = MessageDigest.getInstance("SHA-256");
        int height = (int) shape[1], width = (int) shape[2], size = type.equals("uint8") ? 1 : 2;
        long end = only < 0 ? shape[0] : only + 1;
        for (long z = Math.max(only, 0); z < end; z += chunk[0]) {
            int depth = (int) Math.min(chunk[0], shape[0] - z);
            ByteBuffer layer = ByteBuffer.allocate(depth * height * width * size);
            layer.order(ByteOrder.LITTLE_ENDIAN);
            for (int y = 0; y < height; y += chunk[1]) {
                for (int x = 0; x < width; x += chunk[2]) {
                    int[] block = {
                        depth, Math.min(chunk[1], height - y), Math.min(chunk[2], width - x)};
                    long[] offset = {z, y, x};
                    copy(reader, cells, block, offset, layer, height, width, type);
                }
            }
            sha.update(layer.array());
        }
        StringBuilder hex = new StringBuilder();
        for (byte b : sha.digest()) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }

    private static void copy(
        IHDF5Reader reader, String cells, int[] block, long[] offset,
        ByteBuffer layer, int height, int width, String type) {
        int size = type.equals("uint8") ? 1 : 2;
        byte[] bytes = null;
        short[] shorts = null;
        if (type.equals("uint8")) {
            bytes = reader.uint8().readMDArrayBlockWithOffset(cells, block, offset).getAsFlatArray();
        } else if (type.equals("uint16")) {
            shorts =
                reader.uint16().readMDArrayBlockWithOffset(cells, block, offset).getAsFlatArray();
        } else {
            shorts =
                reader.int16().readMDArrayBlockWithOffset(cells, block, offset).getAsFlatArray();
        }
        int from = 0;
        for (int z = 0; z < block[0]; z++) {
            for (int y = 0; y < block[1]; y++) {
                int to = ((z * height + (int) offset[1] + y) * width + (int) offset[2]) * size;
                for (int x = 0; x < block[2]; x++, from++, to += size) {
                    if (size == 1) {
                        layer.put(to, bytes[from]);
                    } else {
                        layer.putShort(to, shorts[from]);
                    }
                }
            }
        }
    }
}
